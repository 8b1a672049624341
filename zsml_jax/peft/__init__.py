"""Fine-tuning few parameters: MoRe (Monarch), LoRA and friends."""
