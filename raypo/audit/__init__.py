"""The audit of a data set: scores of heuristics, and problems in its rows."""

from raypo.audit.audit import Audit, audit, audit_summary

__all__ = ["Audit", "audit", "audit_summary"]
