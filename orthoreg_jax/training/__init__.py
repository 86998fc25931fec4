"""Fine-tuning: modes, the train step, the loop, and the states it saves."""
