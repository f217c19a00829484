"""What a data set really measures: rules blind to taste, and what is wrong with rows."""

from raypo.audit.audit import Audit, audit

__all__ = ["Audit", "audit"]
