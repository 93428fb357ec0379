"""The feature browser: what is known of every feature (`view`), cards, maps, panels, a static report, the widgets (`app`)."""
