from . import (
    augmentation as augmentation,
    backbones as backbones,
    bench as bench,
    bias_free as bias_free,
    capsules as capsules,
    check as check,
    classifier as classifier,
    cli as cli,
    continual as continual,
    contract as contract,
    control as control,
    dagmm as dagmm,
    data as data,
    decision as decision,
    deep_svdd as deep_svdd,
    detector as detector,
    distributed as distributed,
    draem as draem,
    geotrans as geotrans,
    inpainting as inpainting,
    inspection as inspection,
    metrics as metrics,
    open_set as open_set,
    padim as padim,
    patchcore as patchcore,
    plots as plots,
    pyramids as pyramids,
    reconstruction as reconstruction,
    regions as regions,
    report as report,
    segmentation as segmentation,
    similarity as similarity,
    spade as spade,
    student_teacher as student_teacher,
    synthetic as synthetic,
    tiling as tiling,
    training as training,
    transfer as transfer,
    unet as unet,
    vectors as vectors,
    vt_adl as vt_adl,
    zero_shot as zero_shot,
)
from .capsules import CapsuleAnomaly as CapsuleAnomaly
from .contract import check_detector as check_detector
from .dagmm import DAGMM as DAGMM
from .deep_svdd import (
    DeepSAD as DeepSAD,
    DeepSVDD as DeepSVDD,
)
from .detector import (
    Detector as Detector,
    LabelledDetector as LabelledDetector,
    Localizer as Localizer,
    load_detector as load_detector,
)
from .draem import DRAEM as DRAEM
from .geotrans import GeoTrans as GeoTrans
from .inpainting import Inpainting as Inpainting
from .open_set import OpenSetClassifier as OpenSetClassifier
from .padim import PaDiM as PaDiM
from .patchcore import PatchCore as PatchCore
from .pyramids import (
    PIADE as PIADE,
    PyramidalAutoencoder as PyramidalAutoencoder,
)
from .reconstruction import (
    Autoencoder as Autoencoder,
    VariationalAutoencoder as VariationalAutoencoder,
)
from .segmentation import Segmentation as Segmentation
from .show import show as show
from .spade import SPADE as SPADE
from .student_teacher import StudentTeacher as StudentTeacher
from .transfer import FeatureDetector as FeatureDetector
from .vt_adl import VTADL as VTADL

__version__: str
