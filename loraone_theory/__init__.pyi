# The public names and where they live; `__init__.py` reads this file, so they are written once.

from loraone_theory import claims as claims
from loraone_theory import methods as methods
from loraone_theory import metrics as metrics
from loraone_theory import predict as predict
from loraone_theory import problems as problems
from loraone_theory import testing as testing
from loraone_theory.claims.run import Verdict as Verdict
from loraone_theory.claims.run import verify as verify
from loraone_theory.claims.run import verify_all as verify_all
from loraone_theory.core import linalg as linalg
from loraone_theory.core.factors import Factors as Factors
from loraone_theory.core.linalg import SVDOptions as SVDOptions
from loraone_theory.core.status import Outcome as Outcome
from loraone_theory.core.status import RunStatus as RunStatus
from loraone_theory.dynamics.loop import rerun as rerun
from loraone_theory.dynamics.loop import simulate as simulate
from loraone_theory.dynamics.online import simulate_online as simulate_online
from loraone_theory.dynamics.records import RECORDS as RECORDS
from loraone_theory.dynamics.records import Record as Record
from loraone_theory.dynamics.trajectory import Trajectory as Trajectory
from loraone_theory.dynamics.until import Until as Until
from loraone_theory.methods import METHODS as METHODS
from loraone_theory.methods import Method as Method
from loraone_theory.methods import schedules as schedules
from loraone_theory.methods.parametrisations import Start as Start
from loraone_theory.methods.rules.base import Rule as Rule
from loraone_theory.predict.tuning import Tuned as Tuned
from loraone_theory.predict.tuning import tune_step as tune_step
from loraone_theory.problems.activation import sample_activation as sample_activation
from loraone_theory.problems.autograd import LossProblem as LossProblem
from loraone_theory.problems.from_loss import from_loss as from_loss
from loraone_theory.problems.linear.lazy import sample_linear_lazy as sample_linear_lazy
from loraone_theory.problems.linear.problem import LinearProblem as LinearProblem
from loraone_theory.problems.linear.reduction import Reduction as Reduction
from loraone_theory.problems.linear.reduction import reduce as reduce
from loraone_theory.problems.linear.sampling import sample_linear as sample_linear
from loraone_theory.problems.linear.sampling import (
    sample_linear_matrix_free as sample_linear_matrix_free,
)
from loraone_theory.problems.relu.population import ReLUPopulation as ReLUPopulation
from loraone_theory.problems.relu.problem import ReLUProblem as ReLUProblem
from loraone_theory.problems.relu.sampling import sample_relu as sample_relu
from loraone_theory.problems.relu.sampling import sample_relu_population as sample_relu_population
from loraone_theory.problems.sensing import operators as operators
from loraone_theory.problems.sensing import rip as rip
from loraone_theory.problems.sensing.lazy import sample_dense_lazy as sample_dense_lazy
from loraone_theory.problems.sensing.problem import SensingProblem as SensingProblem
from loraone_theory.problems.sensing.sampling import sample_sensing as sample_sensing
from loraone_theory.sweeps.measures import Measure as Measure
from loraone_theory.sweeps.sweep import Sweep as Sweep
from loraone_theory.sweeps.sweep import open_sweep as open_sweep
from loraone_theory.sweeps.sweep import sweep as sweep

__version__: str
