"""Names for features: KeyBERT's procedure, candidates, the choice, judges, feature types, trust."""
