"""Verify, by computation, the theory of low-rank fine-tuning.

Letters, as in the paper: d input width, k output width, N samples, r LoRA rank, r* true rank of
the shift Δ, W pre-trained weight, A (d×r) and B (r×k) the factors, s their scale, Σ̂ = XᵀX/N,
G the one-step full gradient −∇_W L at W, η the learning rate, α the standard deviation of A₀,
κ the condition number of Δ, λ a damping, E = learned shift − Δ.
"""

from loraone_theory import linalg, methods, metrics, predict, problems, theorems
from loraone_theory.factors import Factors
from loraone_theory.linalg import SVDOptions
from loraone_theory.methods import METHODS, Method
from loraone_theory.metrics import RECORDS
from loraone_theory.problems.linear import LinearProblem
from loraone_theory.problems.reduction import Reduction, reduce
from loraone_theory.problems.relu import ReLUProblem
from loraone_theory.problems.relu_population import ReLUPopulation
from loraone_theory.problems.relu_sampling import sample_relu, sample_relu_population
from loraone_theory.problems.sampling import sample_linear, sample_linear_matrix_free
from loraone_theory.simulate import simulate
from loraone_theory.status import Outcome, RunStatus
from loraone_theory.trajectory import Trajectory
from loraone_theory.verify import Verdict, verify, verify_all

__version__ = "0.1.0"

__all__ = [
    "METHODS",
    "RECORDS",
    "Factors",
    "LinearProblem",
    "Method",
    "Outcome",
    "ReLUPopulation",
    "ReLUProblem",
    "Reduction",
    "RunStatus",
    "SVDOptions",
    "Trajectory",
    "Verdict",
    "linalg",
    "methods",
    "metrics",
    "predict",
    "problems",
    "reduce",
    "sample_linear",
    "sample_linear_matrix_free",
    "sample_relu",
    "sample_relu_population",
    "simulate",
    "theorems",
    "verify",
    "verify_all",
]
