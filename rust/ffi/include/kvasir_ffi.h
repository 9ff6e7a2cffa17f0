/* Tokenizer and chat template, implemented in Rust.
 *
 * Every call returns a KvasirCode. On anything but KVASIR_OK, `error` holds one line of UTF-8 that
 * the caller frees, and the other outputs are untouched. A Rust panic never leaves the library: it
 * becomes KVASIR_INTERNAL. Texts that go in are borrowed for the time of the call.
 * Thread: handles are immutable; any number of threads may use one at a time.
 */
#ifndef KVASIR_FFI_H
#define KVASIR_FFI_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct KvasirTokenizer KvasirTokenizer;
typedef struct KvasirTemplate KvasirTemplate;

typedef enum KvasirCode {
  KVASIR_OK = 0,
  KVASIR_BAD_INPUT = 1, /* what was given can not be used */
  KVASIR_INTERNAL = 2,  /* a bug or a lack of memory in the library */
} KvasirCode;

/* A borrowed text; `data` may be null when `size` is 0. */
typedef struct KvasirText {
  const char* data;
  size_t size;
} KvasirText;

/* Owned by the caller, who gives it back to kvasir_string_free. */
typedef struct KvasirString {
  char* data;
  size_t size;
} KvasirString;

/* Owned by the caller, who gives it back to kvasir_ids_free. */
typedef struct KvasirIds {
  int32_t* data;
  size_t size;
} KvasirIds;

typedef enum KvasirVocabModel { KVASIR_BPE = 0, KVASIR_SPM = 1 } KvasirVocabModel;

typedef struct KvasirVocab {
  int32_t model; /* KvasirVocabModel */
  KvasirText pre_tokenizer;
  const KvasirText* tokens; /* [token_count] */
  const uint8_t* types;     /* [token_count] values of the file format, 1 to 6 */
  size_t token_count;
  const float* scores; /* [score_count] KVASIR_SPM: one per token, none of them NaN */
  size_t score_count;
  const KvasirText* merges; /* [merge_count] */
  size_t merge_count;
  int32_t unknown; /* -1: none */
  bool add_space_prefix;
} KvasirVocab;

KvasirCode kvasir_tokenizer_create(const KvasirVocab* vocab, KvasirTokenizer** tokenizer,
                                   KvasirString* error);
void kvasir_tokenizer_free(KvasirTokenizer* tokenizer);

/* parse_special: the text of a control token becomes that token. */
KvasirCode kvasir_tokenizer_encode(const KvasirTokenizer* tokenizer, KvasirText text,
                                   bool parse_special, KvasirIds* ids, KvasirString* error);

/* `bos` and `eos` are the texts behind the template's bos_token and eos_token. */
KvasirCode kvasir_template_create(KvasirText source, KvasirText bos, KvasirText eos,
                                  KvasirTemplate** chat_template, KvasirString* error);
void kvasir_template_free(KvasirTemplate* chat_template);

typedef struct KvasirMessage {
  KvasirText role;
  KvasirText content;
} KvasirMessage;

typedef struct KvasirChat {
  const KvasirMessage* messages; /* [message_count] */
  size_t message_count;
  bool add_generation_prompt;
} KvasirChat;

typedef struct KvasirRendered {
  KvasirString text;
  KvasirIds ids;
} KvasirRendered;

KvasirCode kvasir_template_render(const KvasirTemplate* chat_template,
                                  const KvasirTokenizer* tokenizer, const KvasirChat* chat,
                                  KvasirRendered* rendered, KvasirString* error);

void kvasir_string_free(KvasirString string);
void kvasir_ids_free(KvasirIds ids);

#ifdef __cplusplus
}
#endif

#endif
