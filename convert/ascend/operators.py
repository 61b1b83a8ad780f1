"""Operators that CANN's ONNX parser supports.

Source: "支持ONNX算子清单" (list of supported ONNX operators), CANN commercial edition 8.0.0, Huawei,
https://www.hiascend.com/doc_center/source/zh/canncommercial/800/apiref/aolapi/operatorlist_00176.html.
The list keeps the spelling of that page. ``ALIASES`` maps the few names that differ from ONNX's names.
``Gelu`` is not on the list. CANN's page on versions names ONNX 1.12. The plugins of the parser register
opsets up to 18 (repository hicann/ops-nn, ``*_onnx_plugin.cpp``).
"""

from __future__ import annotations

NPU_OPSETS = (13, 15, 17, 18)
"""The opsets in which a graph for NPUs can be written.

13 is the greatest of CANN 5.0 and 6.0, and 18 that of CANN 7.0 and 9.1, by Huawei's pages on what ATC reads:
"Supported ONNX operators" of the commercial editions 5.0.4, 6.0.1 and 7.0, and the option ``--framework`` in
the documents of Graph Engine (repository cann/ge) for 9.1.
"""
DEFAULT_NPU_OPSET = 17
"""The least opset that has ``LayerNormalization``; installations that stop below 18 may still read it."""
GREATEST_OPSET = NPU_OPSETS[-1]
GREATEST_IR_VERSION = 8

# fmt: off
LISTED = frozenset(
    {
        "Abs", "Acos", "Acosh", "AdaptiveAvgPool2D", "Add", "AffineGrid", "And", "Argmax", "Argmin",
        "AscendAntiQuant", "AscendQuant", "Asin", "Asinh", "Atan", "Atanh", "AveragePool",
        "BatchNormalization", "BatchMultiClassNMS", "BitShift", "BitwiseAnd", "BitwiseNot",
        "BitwiseOr", "BitwiseXor", "Cast", "Ceil", "Celu", "Clip", "Compress", "Concat", "Constant",
        "ConstantOfShape", "Conv", "ConvTranspose", "Corr", "Cos", "Cosh", "Cumsum",
        "DeformableConv2D", "DepthToSpace", "Det", "Div", "Dropout", "DynSeqOuter", "Einsum", "Elu",
        "EmbeddingBag", "Equal", "Erf", "Exp", "Expand", "EyeLike", "Flatten", "Floor", "Gather",
        "GatherElements", "GatherND", "Gemm", "GlobalAveragePool", "GlobalLpPool", "GlobalMaxPool",
        "Greater", "GreaterOrEqual", "GridSample", "GRU", "Hardmax", "HardSigmoid", "HardSwish",
        "Identity", "If", "InstanceNormalization", "IsInf", "IsNaN", "LayerNormalization",
        "LeakyRelu", "Less", "LessOrEqual", "Log", "LogSoftMax", "LpNormalization", "LpPool", "LRN",
        "LSTM", "LSTMP", "MatMul", "Max", "MaxPool", "MaxRoiPool", "MaxUnpool", "Mean",
        "MeanVarianceNormalization", "Min", "Mod", "MovingSumWithSigmoid", "Mul", "Multinomial",
        "Neg", "NonMaxSuppression", "NonZero", "Not", "OneHot", "Or", "Pad", "Pow", "RandomNormal",
        "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Range", "Reciprocal", "ReduceL1",
        "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMean", "ReduceMin", "ReduceProd",
        "ReduceSumSquare", "ReduceSum", "ReduceMax", "Relu", "Reshape", "Resize", "ReverseSequence",
        "RoiAlign", "RoiExtractor", "Round", "PRelu", "Scatter", "ScatterElements", "ScatterND",
        "Selu", "Shape", "Shrink", "Sigmoid", "Sign", "Sin", "Sinh", "Size", "Slice", "Softmax",
        "SoftmaxCrossEntropyLoss", "Softplus", "Softsign", "SpaceToDepth", "Split", "Sqrt",
        "Squeeze", "Sub", "Sum", "Tan", "Tanh", "TfIdfVectorizer", "ThresholdedRelu", "Tile",
        "TopK", "Transpose", "Trilu", "Unsqueeze", "Where", "Xor",
    }
)
# fmt: on
"""The list, as published."""

ALIASES = {"Argmax": "ArgMax", "Argmin": "ArgMin", "Cumsum": "CumSum", "LogSoftMax": "LogSoftmax"}

AVOIDED = frozenset({"If", "Loop", "Scan", "Range"})
"""Operators that make shapes depend on data; a static graph does not need them."""

SUPPORTED = frozenset(ALIASES.get(name, name) for name in LISTED) - AVOIDED
"""Operators that a graph for NPUs may use."""

QUANTISING = frozenset({"QuantizeLinear", "DequantizeLinear"})
"""ONNX's operators around a quantised product. The list has operators of Huawei's own in their place."""
UNVERIFIED = "whether ATC takes them is unverified"
