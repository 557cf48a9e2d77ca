"""From a run to a model in use: parity, export, registry, ship gate."""
