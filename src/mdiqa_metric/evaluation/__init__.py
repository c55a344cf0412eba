"""Agreement between metrics and human opinion: scoring, correlations, logistic fits, comparisons, and the report."""

from .agreement import agreement as agreement
from .agreement import compare as compare
from .agreement import distribution_metrics as distribution_metrics
from .evaluate import evaluate as evaluate
from .report import write_report as write_report
from .resume_log import StoreError as StoreError
