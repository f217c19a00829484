"""Sequential recommenders: training, sequence embeddings and item scores."""
