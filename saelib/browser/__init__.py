"""The feature browser: views of an SAE's features as cards, maps, one HTML page, and widgets."""
