"""Downloads from public buckets that go on where they were."""
