"""Collections of rules, and records that are checked by them: each rule is a workflow."""
