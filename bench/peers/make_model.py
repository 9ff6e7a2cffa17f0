#!/usr/bin/env python3
"""Writes a GGUF of the shape of a 1B llama with random weights, for benchmarks of larger models.

    bench/peers/.cache/venv/bin/python bench/peers/make_model.py --type Q4_0 --out FILE
                                       [--vocabulary-of MODEL.gguf] [--layers 16]

What it says makes no sense; what it costs is what such a model costs. The tokenizer is copied from
an existing file, so that every engine that reads that one reads this one.
"""

import argparse
import pathlib

import gguf
import numpy

ROOT = pathlib.Path(__file__).resolve().parents[2]
WIDTH, FEED_FORWARD, HEADS, KV_HEADS, HEAD_DIM = 2048, 8192, 32, 8, 64
CONTEXT = 8192
GROUP = 32  # weights that share a scale
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


def matrices(layers, vocabulary):
    """(name, rows, columns) of every quantised tensor; the output matrix is the embedding."""
    yield "token_embd.weight", vocabulary, WIDTH
    for i in range(layers):
        yield f"blk.{i}.attn_q.weight", HEADS * HEAD_DIM, WIDTH
        yield f"blk.{i}.attn_k.weight", KV_HEADS * HEAD_DIM, WIDTH
        yield f"blk.{i}.attn_v.weight", KV_HEADS * HEAD_DIM, WIDTH
        yield f"blk.{i}.attn_output.weight", WIDTH, HEADS * HEAD_DIM
        yield f"blk.{i}.ffn_gate.weight", FEED_FORWARD, WIDTH
        yield f"blk.{i}.ffn_up.weight", FEED_FORWARD, WIDTH
        yield f"blk.{i}.ffn_down.weight", WIDTH, FEED_FORWARD


def norms(layers):
    yield "output_norm.weight"
    for i in range(layers):
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


def add_shape(writer, layers, vocabulary):
    writer.add_name("random 1B llama")
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(layers)
    writer.add_feed_forward_length(FEED_FORWARD)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_rope_dimension_count(HEAD_DIM)
    writer.add_rope_freq_base(500000.0)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(vocabulary)


def write(options):
    writer = gguf.GGUFWriter(options.out, "llama")
    vocabulary = copy_vocabulary(writer, options.vocabulary_of)
    add_shape(writer, options.layers, vocabulary)
    kind = TYPES[options.type]
    writer.add_file_type(
        gguf.LlamaFileType.MOSTLY_Q4_0
        if options.type == "Q4_0"
        else gguf.LlamaFileType.MOSTLY_Q8_0
    )
    block_bytes = gguf.GGML_QUANT_SIZES[kind][1]
    for name in norms(options.layers):
        writer.add_tensor_info(name, (WIDTH,), numpy.dtype(numpy.float32), WIDTH * 4)
    for name, rows, columns in matrices(options.layers, vocabulary):
        row_bytes = columns // GROUP * block_bytes
        writer.add_tensor_info(
            name, (rows, row_bytes), numpy.dtype(numpy.uint8), rows * row_bytes, raw_dtype=kind
        )
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    draw = numpy.random.default_rng(1)
    for _ in norms(options.layers):
        writer.write_tensor_data(numpy.ones(WIDTH, dtype=numpy.float32))
    for _, rows, columns in matrices(options.layers, vocabulary):
        writer.write_tensor_data(random_blocks(draw, options.type, rows, columns))
    writer.close()


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--type", choices=TYPES, default="Q4_0")
    parser.add_argument("--out", required=True)
    parser.add_argument("--layers", type=int, default=16)
    parser.add_argument(
        "--vocabulary-of", default=str(ROOT / "models" / "smollm2-135m-instruct-q4_1.gguf")
    )
    write(parser.parse_args())


if __name__ == "__main__":
    main()
