"""The audio tower in int8: calibrated on a project's own audio by NNCF, computed by OpenVINO; see CLAPBOARD_DTYPE."""

from clapboard.model.int8.calibration import Calibration

__all__ = ["Calibration"]
