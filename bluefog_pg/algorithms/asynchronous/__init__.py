"""Algorithms over one-sided windows, in which no rank waits for another one's step."""

from .a2cid2 import A2CiD2 as A2CiD2
from .ad_psgd import ADPSGD as ADPSGD
from .async_push_sum import AsyncPushSum as AsyncPushSum
from .pull_get import PullGet as PullGet
from .win_put import WinPut as WinPut
