"""Ranks that do not do well, for tests/test_gpu_check.py."""


def bad(rank):
    def fail():
        raise ValueError("on purpose")

    def fail_alone():
        if rank.rank == 1:
            raise ValueError("alone")
        return 0

    rank.check("all fail", fail)
    rank.check("all are wrong", lambda: 1 + rank.rank, of="2")
    rank.check("one fails", fail_alone)
    if rank.rank == 1:
        rank.check("never", lambda: 0)
