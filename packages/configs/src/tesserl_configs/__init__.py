"""One validated YAML per deep-RL experiment: the schema, its rules and its errors, without torch."""
