"""mtlsctl: declarative mutual TLS. Say who may call whom; plan it, apply it, prove it."""

__version__ = "0.1.0"
