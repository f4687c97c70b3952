"""The Natural Scenes Dataset: where its files are, what its tables say, and how they are downloaded."""
