"""Where files live: verbs that make what is written survive a crash."""
