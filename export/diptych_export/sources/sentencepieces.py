"""SigLIP's sentencepiece tokenizer in, a tokenizer.json of the same ids out."""

from __future__ import annotations

from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format
from tokenizers import Regex, Tokenizer, normalizers, processors
from tokenizers.models import Unigram
from tokenizers.pre_tokenizers import Metaspace
from transformers import SiglipTokenizer

from diptych_export.errors import BadCheckpoint

# What is read here of google/sentencepiece, src/sentencepiece_model.proto. The package has the
# whole of it in Python, but generated for a protobuf that tritonclient does not go with.
_SCHEMA = """
    name: "diptych/sentencepieces.proto"
    message_type {
      name: "Model"
      field { name: "trainer" number: 2 type: TYPE_MESSAGE type_name: "Trainer" }
      field { name: "normalizer" number: 3 type: TYPE_MESSAGE type_name: "Normalizer" }
    }
    message_type { name: "Trainer" field { name: "model_type" number: 3 type: TYPE_INT32 } }
    message_type {
      name: "Normalizer"
      field { name: "name" number: 1 type: TYPE_STRING }
      field { name: "characters" number: 2 type: TYPE_BYTES }
    }
"""
_UNIGRAM = (0, 1)  # values of `model_type`; 0 is its absence


def converted(tokenizer: SiglipTokenizer) -> str:
    """tokenizer.json for texts cleaned as `diptych.preprocess.text.clean_as_siglip` does.

    Raises:
        BadCheckpoint: the pieces are not of a unigram model, as SigLIP's are.
    """
    pieces: Any = tokenizer.sp_model
    model = _model(pieces.serialized_model_proto())
    if model.trainer.model_type not in _UNIGRAM:
        raise BadCheckpoint("spiece.model: not a unigram model, as SigLIP's are")
    scores = [(pieces.id_to_piece(i), pieces.get_score(i)) for i in range(pieces.get_piece_size())]
    fast = Tokenizer(Unigram(scores, unk_id=pieces.unk_id()))
    fast.normalizer = _normalizer(model.normalizer)
    fast.pre_tokenizer = Metaspace()
    end = str(tokenizer.eos_token)
    fast.post_processor = processors.TemplateProcessing(
        single=["$A", end], special_tokens=[(end, tokenizer.eos_token_id)]
    )
    return fast.to_str()


def _normalizer(rules: Any) -> normalizers.Normalizer:
    """sentencepiece's: its table of characters, no white space at the ends, none double.

    The table turns zero-width characters into spaces, so it comes before those. `tokenizers`
    looks up whole graphemes in it, and loses marks that follow a character with an entry;
    composing first leaves few: of random strings, 1 in 700 then differs, 1 in 130 otherwise.
    """
    steps: list[normalizers.Normalizer] = []
    if "nfkc" in rules.name:
        steps.append(normalizers.NFKC())
    if rules.characters:
        steps.append(normalizers.Precompiled(rules.characters))
    ends = [normalizers.Strip(), normalizers.Replace(Regex(" {2,}"), " ")]
    return normalizers.Sequence([*steps, *ends])


def _model(serialized: bytes) -> Any:
    pool = descriptor_pool.DescriptorPool()
    schema = text_format.Parse(_SCHEMA, descriptor_pb2.FileDescriptorProto())
    pool.Add(schema)
    kind = message_factory.GetMessageClass(pool.FindMessageTypeByName("Model"))
    return kind.FromString(serialized)
