"""The second opinion: every element of a target compared, bit for bit, with what the flat rules say it is. No plan, no engine.

Programs ──stage──▶ what each tensor is made of ──regions──▶ source boxes ──compare──▶ Report ──explain──▶ causes
"""

from isomorph.verify.compare import verify
from isomorph.verify.report import Difference, Element, Report

__all__ = ["Difference", "Element", "Report", "verify"]
