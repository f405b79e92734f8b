"""From a schema to objects: the only place where configuration becomes constructor calls."""
