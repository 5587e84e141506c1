"""What an answer's text says, and whether that is the gold: pure functions, total, in linear time.

`scorer(settings)` gives the function of a score; `gold_of` makes what it compares with from a row's cell.
"""

from cometbatch.evaluation.scorers.golds import GoldError as GoldError
from cometbatch.evaluation.scorers.golds import gold_of as gold_of
from cometbatch.evaluation.scorers.scores import Gold as Gold
from cometbatch.evaluation.scorers.scores import Score as Score
from cometbatch.evaluation.scorers.scores import Scorer as Scorer
from cometbatch.evaluation.scorers.scores import scorer as scorer
