"""The version of this package, for files that say which program wrote them."""

VERSION = "0.1.0"
