"""OrthoReg and task arithmetic in JAX: the public list."""

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
