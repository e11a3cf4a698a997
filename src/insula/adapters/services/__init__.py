"""Actions of services, behind one port."""
