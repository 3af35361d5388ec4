"""autograd's counts of changes, which tell a block that its parameters have been written to."""

from collections.abc import Sequence

from bluefog_pg.blocks.block import Block


def share_versions(blocks: Sequence[Block]) -> bool:
    """Whether changes of different blocks are counted together: their parameters view one tensor.

    Then blocks cannot be finished one by one, for each would look changed by the one before. Counts
    as a change of all blocks.
    """
    for block in blocks:
        others = [tensor for other in blocks if other is not block for tensor in other.tensors]
        before = [tensor._version for tensor in others]
        block.touch()
        if before != [tensor._version for tensor in others]:
            return True
    return False
