"""Words that an app puts on its workflows, collections and records, to find them by."""
