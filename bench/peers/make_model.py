#!/usr/bin/env python3
"""Writes a GGUF with random weights, for benchmarks of shapes that no small file has.

    bench/peers/.cache/venv/bin/python bench/peers/make_model.py --out FILE [--shape llama-1b]
                                       [--type Q4_0] [--vocabulary-of MODEL.gguf]

llama-1b is what its name says; kv-heavy has the keys and values of the default model, token for
token, and a tenth of the weights of its layers.

What it says makes no sense; what it costs is what such a model costs. The tokenizer is copied from
an existing file, so that every engine that reads that one reads this one.
"""

import argparse
import dataclasses
import pathlib

import gguf
import numpy

ROOT = pathlib.Path(__file__).resolve().parents[2]
CONTEXT = 8192
HEAD_DIM = 64
GROUP = 32  # weights that share a scale


@dataclasses.dataclass(frozen=True)
class Shape:
    layers: int
    width: int
    feed_forward: int
    heads: int
    kv_heads: int


SHAPES = {
    "llama-1b": Shape(layers=16, width=2048, feed_forward=8192, heads=32, kv_heads=8),
    "kv-heavy": Shape(layers=30, width=192, feed_forward=384, heads=3, kv_heads=3),
}
# Standard deviation of uniform codes: 0..15 and -127..127.
CODE_DEVIATION = {"Q4_0": 4.61, "Q8_0": 73.6}
TYPES = {
    "Q4_0": gguf.GGMLQuantizationType.Q4_0,
    "Q8_0": gguf.GGMLQuantizationType.Q8_0,
}


def random_blocks(draw, name, rows, columns):
    """Rows of blocks: a half-precision scale, then the codes; values near 1 / sqrt(columns)."""
    groups = columns // GROUP
    scale = 1.0 / (CODE_DEVIATION[name] * numpy.sqrt(columns))
    scales = (scale * draw.uniform(0.8, 1.2, (rows, groups, 1))).astype(numpy.float16)
    code_bytes = GROUP // 2 if name == "Q4_0" else GROUP
    codes = draw.integers(0, 256, (rows, groups, code_bytes), dtype=numpy.uint8)
    if name == "Q8_0":
        codes[codes == 128] = 129  # -128 is not a code
    return numpy.concatenate([scales.view(numpy.uint8), codes], axis=2).reshape(rows, -1)


def matrices(shape, vocabulary):
    """(name, rows, columns) of every quantised tensor; the output matrix is the embedding."""
    query, key, width = shape.heads * HEAD_DIM, shape.kv_heads * HEAD_DIM, shape.width
    yield "token_embd.weight", vocabulary, width
    for i in range(shape.layers):
        yield f"blk.{i}.attn_q.weight", query, width
        yield f"blk.{i}.attn_k.weight", key, width
        yield f"blk.{i}.attn_v.weight", key, width
        yield f"blk.{i}.attn_output.weight", width, query
        yield f"blk.{i}.ffn_gate.weight", shape.feed_forward, width
        yield f"blk.{i}.ffn_up.weight", shape.feed_forward, width
        yield f"blk.{i}.ffn_down.weight", width, shape.feed_forward


def norms(shape):
    yield "output_norm.weight"
    for i in range(shape.layers):
        yield f"blk.{i}.attn_norm.weight"
        yield f"blk.{i}.ffn_norm.weight"


def copy_vocabulary(writer, path):
    """Adds the tokenizer of another file; the number of its tokens."""
    reader = gguf.GGUFReader(path)
    for field in reader.fields.values():
        if not field.name.startswith("tokenizer."):
            continue
        kind = field.types[0]
        element = field.types[-1] if kind == gguf.GGUFValueType.ARRAY else None
        writer.add_key_value(field.name, field.contents(), kind, sub_type=element)
    return len(reader.fields["tokenizer.ggml.tokens"].data)


def add_shape(writer, name, vocabulary):
    shape = SHAPES[name]
    writer.add_name(f"random {name}")
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(shape.width)
    writer.add_block_count(shape.layers)
    writer.add_feed_forward_length(shape.feed_forward)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.kv_heads)
    writer.add_rope_dimension_count(HEAD_DIM)
    writer.add_rope_freq_base(500000.0)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(vocabulary)


def write(options):
    writer = gguf.GGUFWriter(options.out, "llama")
    vocabulary = copy_vocabulary(writer, options.vocabulary_of)
    add_shape(writer, options.shape, vocabulary)
    shape = SHAPES[options.shape]
    kind = TYPES[options.type]
    writer.add_file_type(
        gguf.LlamaFileType.MOSTLY_Q4_0
        if options.type == "Q4_0"
        else gguf.LlamaFileType.MOSTLY_Q8_0
    )
    block_bytes = gguf.GGML_QUANT_SIZES[kind][1]
    for name in norms(shape):
        writer.add_tensor_info(name, (shape.width,), numpy.dtype(numpy.float32), shape.width * 4)
    for name, rows, columns in matrices(shape, vocabulary):
        row_bytes = columns // GROUP * block_bytes
        writer.add_tensor_info(
            name, (rows, row_bytes), numpy.dtype(numpy.uint8), rows * row_bytes, raw_dtype=kind
        )
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    draw = numpy.random.default_rng(1)
    for _ in norms(shape):
        writer.write_tensor_data(numpy.ones(shape.width, dtype=numpy.float32))
    for _, rows, columns in matrices(shape, vocabulary):
        writer.write_tensor_data(random_blocks(draw, options.type, rows, columns))
    writer.close()


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shape", choices=SHAPES, default="llama-1b")
    parser.add_argument("--type", choices=TYPES, default="Q4_0")
    parser.add_argument("--out", required=True)
    parser.add_argument(
        "--vocabulary-of", default=str(ROOT / "models" / "smollm2-135m-instruct-q4_1.gguf")
    )
    write(parser.parse_args())


if __name__ == "__main__":
    main()
