"""What is measured: the cases of the published table, and how a case is cut to a machine."""

from trainpace.cases.models import LLAMA2_7B, LLAMA2_70B, YI_34B_200K, Model
from trainpace.cases.published import PUBLISHED, Case, Mini
from trainpace.cases.workload import Shape, Workload

__all__ = ["LLAMA2_7B", "LLAMA2_70B", "PUBLISHED", "YI_34B_200K", "Case", "Mini", "Model", "Shape", "Workload"]
