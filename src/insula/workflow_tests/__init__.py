"""Tests of workflows, and what they expect."""
