"""From a run to a model in use: parity, registry, ship gate, serving, feedback."""
