"""Sparse autoencoders for sentence embeddings, with features named by keyword extraction."""
