"""Bad use and bad luck: one line on stderr, the right exit code, nothing left behind."""
import os
import resource
import signal
import struct
import unittest

from harness import MODEL, SANITIZED, TINY, KvasirTest, no_core_files

BAD_USE = 2
RUNTIME_FAILURE = 1


def with_tensor_type(content, name, type_id):
    """The GGUF file with another type id for the tensor."""
    at = content.index(struct.pack("<Q", len(name)) + name) + 8 + len(name)
    dimensions = struct.unpack_from("<I", content, at)[0]
    at += 4 + 8 * dimensions
    return content[:at] + struct.pack("<I", type_id) + content[at + 4:]


class Refusals(KvasirTest):
    def refused(self, code, named, *arguments, **options):
        """`named` is a part of the message."""
        before = self.files()
        result = self.kvasir(*arguments, **options)
        message = result.stderr.decode()
        self.assertEqual(result.returncode, code, (arguments, message))
        self.assertRegex(message, r"\Akvasir: [^\n]+\n\Z", arguments)
        self.assertIn(named, message, arguments)
        self.assertEqual(self.files(), before, arguments)


class BadUseTest(Refusals):
    def test_the_command_line(self):
        batch = self.write("batch", '{"prompt": 1}\n')
        for named, *arguments in (
                ("subcommand",),
                ("nonsense", "nonsense"),
                ("--nonsense", "run", "-p", "x", "--nonsense"),
                ("--prompt", "run"),
                ("--prompt", "run", "-p", "x", "--tokens", "1"),
                ("stop", "run", "-p", "x", "--stop", ""),
                ("empty", "run", "-p", ""),
                ("--max-tokens", "run", "-p", "x", "-n", "-1"),
                ("0 tokens", "run", "-p", "x", "-n", "0"),
                ("temperature", "run", "-p", "x", "--temperature", "-1"),
                ("temperature", "run", "-p", "x", "--temperature", "nan"),
                ("top_p", "run", "-p", "x", "--top-p", "1.5"),
                ("min_p", "run", "-p", "x", "--min-p", "-0.1"),
                ("repetition_penalty", "run", "-p", "x", "--repetition-penalty", "nan"),
                ("--logit-bias", "run", "-p", "x", "--logit-bias", "many"),
                ("--threads", "run", "-p", "x", "--threads", "-2"),
                ("--kv paged", "bench", "slope", "--kv", "none"),
                ("--isa reference", "bench", "slope", "--isa", "reference"),
                ("context", "bench", "slope", "-m", TINY, "--depth", "4294967295"),
                ("--kv-memory", "run", "-p", "x", "--kv-memory", "-5"),
                ("KV budget", "run", "-p", "x", "--kv-memory", "1KiB"),
                ("KV budget", "run", "-p", "x", "-n", "200", "--kv-memory", "1MiB"),
                ("--seed", "run", "-p", "x", "--seed", "-1"),
                ("--logit-bias", "run", "-p", "x", "--logit-bias", "4294967297=50"),
                ("ids are", "run", "-p", "x", "--logit-bias", "99999=50"),
                ("are available", "run", "-p", "x", "--kv-memory", "100000GiB"),
                ("--kv-dtype", "run", "-p", "x", "--kv-dtype", "int3"),
                ("--attention-order", "run", "-p", "x", "--attention-order", "tile"),
                ("--isa", "run", "-p", "x", "--isa", "mmx"),
                ("--choices 0", "run", "-p", "x", "--choices", "0"),
                ("--choices 4000000", "run", "-p", "x", "--choices", "4000000"),
                ("--beams 17", "run", "-p", "x", "--beams", "17"),
                ("beam search", "run", "-p", "x", "--beams", "2", "--temperature", "1"),
                ("vocabulary", "run", "--tokens", "49152"),
                ("vocabulary", "run", "--tokens", "-1"),
                ("'1x'", "run", "--tokens", "1x"),
                ("batch line 1", "run", "--batch", batch),
                ("vocabulary", "eval", "--tokens", "1,99999"),
                ("vocabulary", "detokenize", "--tokens", "49152"),
                ("exactly one", "calc"),
                ("exactly one", "calc", "--layers", "3"),
                ("--preset", "calc", "--preset", "gpt-9"),
                ("--tokens -5", "calc", "--preset", "llama-7b", "--tokens", "-5"),
                ("--tokens", "calc", "--preset", "llama-7b", "--tokens", "nan"),
                ("--sequences 0", "calc", "--preset", "llama-7b", "--sequences", "0"),
                ("2^64", "calc", "--layers", "1048576", "--kv-heads", "1048576", "--head-dim",
                 "1048576", "--tokens", "1000000000"),
                ("--dtype", "calc", "--preset", "llama-7b", "--dtype", "int3"),
                ("--system", "chat", "-m", MODEL, "--system")):
            self.refused(BAD_USE, named, *arguments)

    def test_a_prompt_longer_than_the_context(self):
        tokens = ",".join(["1"] * 8192)
        self.refused(BAD_USE, "context of 8192", "run", "--tokens", tokens, "-n", "1")
        self.refused(BAD_USE, "context of 64", "run", "-p", "a " * 100, "--context", "64")

    def test_files_that_are_no_usable_model(self):
        tiny = TINY.read_bytes()
        at = tiny.index(b"llama", tiny.index(b"general.architecture"))
        tensor = b"blk.0.attn_q.weight"
        for named, content in (
                ("empty.gguf", b""),
                ("text.gguf", b"This is not a model.\n" * 100),
                ("cut.gguf", tiny[:len(tiny) // 2]),
                ("header.gguf", tiny[:20]),
                ("mamba", tiny[:at] + b"mamba" + tiny[at + 5:]),
                ("blk.0.attn_q.weight", with_tensor_type(tiny, tensor, 10)),
                ("blk.0.attn_q.weight", with_tensor_type(tiny, tensor, 4711))):
            path = self.write(named if named.endswith(".gguf") else "bad.gguf", content)
            for command in (("run", "--tokens", "1"), ("eval", "--tokens", "1"), ("calc",)):
                self.refused(BAD_USE, named, *command, "-m", path)

    def test_files_that_do_not_exist(self):
        for arguments in (("run", "-p", "x", "-m", "none"), ("run", "-f", "none"),
                          ("run", "--batch", "none"), ("eval", "-f", "none"),
                          ("tokenize", "-f", "none"), ("tokenize", "-p", "x", "-m", "none"),
                          ("template", "-f", "none"), ("chat", "-m", "none"),
                          ("inspect", "none"), ("calc", "-m", "none")):
            self.refused(BAD_USE, "none: No such file", *arguments)
        self.refused(BAD_USE, str(self.folder), "inspect", self.folder)

    def test_messages_that_are_none(self):
        for content in ("", "{", "{}", "[1]", '[{"role": "user"}]', '{"messages": {}}',
                        '[{"role": "user", "content": 1}]'):
            path = self.write("messages.json", content)
            self.refused(BAD_USE, "messages.json", "template", "-f", path)

    def test_text_that_is_not_utf_8(self):
        path = self.write("latin1", b"na\xefve")
        self.refused(BAD_USE, "UTF-8", "tokenize", "-f", path)
        self.refused(BAD_USE, "UTF-8", "run", "-f", path)


class BadLuckTest(Refusals):
    COMMANDS = (("run", "-p", "x", "-n", "3"), ("run", "-p", "x", "-n", "3", "--json"),
                ("eval", "-p", "two words"), ("tokenize", "-p", "x"),
                ("detokenize", "--tokens", "1"), ("inspect", MODEL),
                ("calc", "--preset", "llama-7b"))

    def test_a_full_disk_behind_stdout(self):
        for arguments in self.COMMANDS:
            with open("/dev/full", "wb") as full:
                self.refused(RUNTIME_FAILURE, "standard output", *arguments, stdout=full)

    def test_a_pipe_that_nobody_reads(self):
        for arguments in self.COMMANDS:
            read_end, write_end = os.pipe()
            os.close(read_end)
            with open(write_end, "wb") as pipe:
                self.refused(RUNTIME_FAILURE, "standard output", *arguments, stdout=pipe)

    def test_a_folder_for_logits_that_does_not_exist(self):
        self.refused(BAD_USE, "none/x.npy", "eval", "-p", "x", "--logits-out", "none/x.npy")

    def test_a_disk_that_fills_up_under_the_logits(self):
        self.write("logits.npy", "the old one")

        def limit_files():
            no_core_files()
            resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))

        self.refused(RUNTIME_FAILURE, "logits.npy", "eval", "-p", "many words are many rows here",
                     "--logits-out", "logits.npy", preexec_fn=limit_files)
        self.assertEqual((self.folder / "logits.npy").read_text(), "the old one")

    def test_a_second_interrupt_ends_the_process_at_once(self):
        process = self.start("chat", "-n", "4000")
        process.stdin.write(b"Tell me a long story.\n")
        self.assertTrue(process.stdout.read(1))
        process.send_signal(signal.SIGSTOP)  # both arrive before it can answer the first
        process.send_signal(signal.SIGINT)
        process.send_signal(signal.SIGTERM)
        process.send_signal(signal.SIGCONT)
        process.communicate(timeout=60)
        self.assertIn(process.returncode, (-signal.SIGINT, -signal.SIGTERM))

    @unittest.skipIf(SANITIZED, "sanitizers need address space of their own")
    def test_too_little_memory_for_the_cache(self):
        def limit_memory():
            no_core_files()
            resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))

        self.refused(RUNTIME_FAILURE, "", "run", "-p", "x", "--kv-memory", "2GiB",
                     preexec_fn=limit_memory)


if __name__ == "__main__":
    unittest.main()
