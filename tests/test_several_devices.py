"""Several devices share each batch of a training: tested on logical CPU devices, in a process of its own."""

import json
import os
import subprocess
import sys

from course.workspace import COURSE_FOLDER

SCRIPT = """
import json
import sys
from pathlib import Path

import tensorflow as tf

import helpers

[processor] = tf.config.list_physical_devices("CPU")
tf.config.set_logical_device_configuration(processor, [tf.config.LogicalDeviceConfiguration()] * 3)
work_dir = Path(sys.argv[1])
settings = {**helpers.new_settings("sample", "smoke", "report", 0), "image_size": 16, "epochs": 3,
            "images_per_epoch": 44, "batch_size": 8}
helpers.prepare_arrays(helpers.read_json(work_dir / "dataset.json", "01"), work_dir, 16, progress=False)
(work_dir / "model").mkdir()
helpers.create_model(image_size=16).save(work_dir / "model" / "untrained.keras")
pictures = helpers.load_training_pictures(work_dir, settings)
strategy = helpers.training_strategy(settings["batch_size"], "CPU")
with strategy.scope():
    model = helpers.load_untrained_model(work_dir)
    callbacks, first_epoch = helpers.prepare_training(model, work_dir, settings, len(pictures.X))
model.fit(helpers.training_batches(pictures, settings), epochs=settings["epochs"],
          steps_per_epoch=helpers.steps_per_epoch(len(pictures.X), settings),
          validation_data=helpers.ordered_batches(*helpers.load_arrays(work_dir, "valid")),
          callbacks=callbacks, shuffle=False, verbose=0)
with helpers.training_strategy(settings["batch_size"], "CPU").scope():
    again = helpers.load_untrained_model(work_dir)
    _, resumed_at = helpers.prepare_training(again, work_dir, settings, len(pictures.X))
losses = [row["loss"] for row in helpers.read_history(work_dir)]
steps = int(model.optimizer.iterations.numpy())
print("RESULT", json.dumps({"replicas": strategy.num_replicas_in_sync, "steps": steps, "losses": losses,
                            "resumed_at": resumed_at}))
"""


def test_a_training_on_several_devices_takes_the_right_steps_its_loss_falls_and_it_resumes(work_dir):
    environment = {**os.environ, "PYTHONPATH": str(COURSE_FOLDER), "TF_CPP_MIN_LOG_LEVEL": "3"}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(work_dir)], capture_output=True, text=True, check=False, env=environment
    )
    assert "RESULT" in done.stdout, done.stderr[-3000:]
    result = json.loads(done.stdout.split("RESULT", 1)[1])
    assert result["replicas"] == 2  # a third device would get another part of the eight pictures of a batch
    assert result["steps"] == 3 * 6  # 44 pictures in batches of 8: the last one is smaller
    assert result["losses"][-1] < result["losses"][0] and len(result["losses"]) == 3
    assert result["resumed_at"] == 3
