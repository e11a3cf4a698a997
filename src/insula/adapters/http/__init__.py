"""Outgoing HTTP: one egress policy, sockets that close the moment a task is cancelled."""
