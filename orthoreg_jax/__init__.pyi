"""The public list."""

from .arithmetic.geometry import column_cosines as column_cosines
from .arithmetic.geometry import singular_values as singular_values
from .arithmetic.matrices import Matrix as Matrix
from .arithmetic.matrices import Skip as Skip
from .arithmetic.matrices import describe_matrices as describe_matrices
from .arithmetic.penalty import add_orthogonality_penalty as add_orthogonality_penalty
from .arithmetic.penalty import orthogonality_penalty as orthogonality_penalty
from .arithmetic.task_vectors import add_task_vectors as add_task_vectors
from .arithmetic.task_vectors import analogy as analogy
from .arithmetic.task_vectors import apply_task_vector as apply_task_vector
from .arithmetic.task_vectors import cosine_matrix as cosine_matrix
from .arithmetic.task_vectors import negate_task_vector as negate_task_vector
from .arithmetic.task_vectors import norm as norm
from .arithmetic.task_vectors import task_vector as task_vector
from .clip.checkpoint import Checkpoint as Checkpoint
from .clip.checkpoint import image_encoder as image_encoder
from .clip.checkpoint import load_checkpoint as load_checkpoint
from .clip.checkpoint import save_checkpoint as save_checkpoint
from .clip.preprocessing import load_preprocessing as load_preprocessing
from .clip.weights import VISUAL_MATRICES as VISUAL_MATRICES
from .clip.zeroshot import zero_shot_head as zero_shot_head
from .evaluation.accuracy import measure_accuracy as measure_accuracy
from .storage import load_tree as load_tree
from .storage import save_tree as save_tree
from .tasks.task import load_tasks as load_tasks
