"""What a data set really measures: scores of heuristic baselines, and what is wrong with rows."""

from raypo.audit.audit import Audit, audit, audit_summary

__all__ = ["Audit", "audit", "audit_summary"]
