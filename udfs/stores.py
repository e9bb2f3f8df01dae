"""What views are kept in, by what they have in common. No I/O."""

from __future__ import annotations

from udfs.counts import CountStore
from udfs.joins import JoinStore
from udfs.milestones import MilestoneStore
from udfs.panes import PaneStore
from udfs.sessions import SessionStore
from udfs.totals import TotalsStore

MergedStore = SessionStore | MilestoneStore | CountStore | JoinStore | TotalsStore
"""Those whose parcels are merged into what is kept, which `advance` does, not panes."""
FoldedStore = PaneStore | SessionStore | MilestoneStore | CountStore | TotalsStore
Store = FoldedStore | JoinStore
