"""Small documents, read strictly and by a schema."""
