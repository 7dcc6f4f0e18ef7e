"""The values that all floors share: frozen, standard library only, no IO."""
