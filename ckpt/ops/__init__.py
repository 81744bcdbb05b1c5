"""The verbs: each resolves its refs, acts, and returns a value. Nothing here prints."""
