"""Hugging Face: a callback records each `train` of a Trainer.

python examples/transformers_trainer.py [BASE_DIR]
"""

from __future__ import annotations

import sys

import torch
from transformers import BertConfig, BertForSequenceClassification, Trainer, TrainingArguments

from provenance.integrations.transformers import ProvenanceCallback


def main(base_dir: str = "artifacts") -> None:
    size = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    model = BertForSequenceClassification(BertConfig(vocab_size=8, intermediate_size=8, **size))
    data = [
        {"input_ids": torch.tensor([i % 7, 1, 2]), "labels": torch.tensor(i % 2)} for i in range(32)
    ]
    arguments = TrainingArguments(
        output_dir=f"{base_dir}/checkpoints",
        num_train_epochs=2,
        eval_strategy="epoch",
        logging_strategy="epoch",
        save_strategy="no",
        report_to="none",  # or "provenance", without the callback
    )
    recording = ProvenanceCallback(test=data[:8], base_dir=base_dir)
    Trainer(
        model, arguments, train_dataset=data, eval_dataset=data[:8], callbacks=[recording]
    ).train()


if __name__ == "__main__":
    main(*sys.argv[1:])
