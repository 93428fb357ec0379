"""Names for features: KeyBERT's procedure, candidates and a choice by evidence, judges, what a feature is about."""
