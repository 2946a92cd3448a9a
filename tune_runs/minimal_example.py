"""The smallest complete experiment: three dicts, two options, three repetitions, on a synthetic dataset.

Make the dataset first (`make demo` does both):

    python tune_runs/prepare_data.py synthetic --name demo --train 4000 --val 1000 --test 1000 --subsets A,B
    python tune_runs/minimal_example.py

If you start it again, it trains nothing. If you add a value to an option, or a repetition, it trains only what is new.
"""

import torch

from cluster.experiment import Experiment
from data_pipeline.augmenters import RandomRotator
from data_pipeline.distorters import NoDistorter
from data_pipeline.normalizers import Shifter
from posenet import errors
from posenet.losses import MetricLoss
from posenet.models import CorrectorMLP

experiment_config = {
    "name": "minimal_example",  # results are written to results/minimal_example/
    "train_set": "demo_train",  # data/demo_train_labels.pt and data/demo_train_poses.pt
    "train_set_size": None,  # take only the first n samples; None takes all
    "val_set": "demo_val",  # used to choose the best epoch
    "val_set_size": None,
    "test_set": "demo_test",  # reported, with the weights of the best epoch; None for no test set
    "test_set_size": None,
    "use_preset": True,  # train on the stored predictions; False: on labels with errors added by the distorter
    "normalizer": Shifter,  # moves the input's centre to the origin; None keeps the camera frame
    "target_device": torch.device("cpu"),  # torch.device("cuda"), torch.device("cuda:1") or a list of these
    "n_repetitions": 3,  # trainings of each combination, each with a different seed
    "init_weights_path": None,  # the weights.pt of another trial to start from
    "seed": 0,  # the seeds of the repetitions are derived from it
    "deterministic_mode": True,  # the same spec gives the same bits on the same kind of CPU
    "data_dir": "data",
    "storage_path": "results",
    "cpus_per_trial": 1,  # CPU cores, and therefore torch threads, of each trial
    "trials_per_device": 1,  # how many trials share a GPU
    "max_retries": 2,  # how often a trial is restarted after its worker process was lost
    "checkpoint_interval_s": 30.0,  # write a checkpoint at the end of an epoch if the last one is older
    "trial_timeout_s": None,  # a trial that reports nothing for this long has failed
    "stop_if_all_fail": 5,  # stop if the first five trials all fail
    "keep_weights": "all",  # 'best' keeps only those of the best combination, 'none' keeps none
}

solver_config = {
    "num_epochs": 10,
    "batch_size": 128,
    "log_frequency": 1,  # how often per epoch the metrics are logged
    "log_loss": False,  # also log the loss of every batch
    "log_grad": False,  # also log the mean norm of the gradients of every batch
    "verbose": False,  # print each intermediate result
    "show_plots": False,  # draw the examples at some epochs, into each trial's folder
    "matmul_precision": "highest",  # 'high' uses TF32 on a GPU
    "interest_keys": [],  # after the run, contains the keys of the options that varied
    "val_example_indices": [0, 100, 200],  # validation samples whose predictions are saved at every log point
    "val_example_subset": "A",
}

base_hyperparams = {
    "model": CorrectorMLP,
    "model_args": {"hidden_dims": [256, 256], "activation": "leaky_relu", "dropout": None, "batchnorm": False},
    "choose_strength": False,  # True: multiply corrections by 0, 0.1, … or 1, whichever is best in validation
    "loss_function": MetricLoss(errors.coordinate_difference, "absolute"),
    "loss_space": "default",  # compute the loss in normalised space; 'original': in millimetres
    "eval_space": "original",  # log metrics in millimetres
    "optimizer": torch.optim.Adam,
    "optimizer_args": {"lr": 1e-3, "weight_decay": 0.0},
    "scheduler": torch.optim.lr_scheduler.StepLR,
    "scheduler_args": {"step_size": 8, "gamma": 0.1},
    "scheduler_requires_metric": False,  # True for ReduceLROnPlateau
    "distorter": NoDistorter,
    "distorter_args": {},
    "augmenters": [],  # for example [RandomRotator()]; applied in this order to input and label
}

if __name__ == "__main__":
    experiment = Experiment(experiment_config, solver_config, base_hyperparams)
    experiment.add_options("optimizer_args.lr", [3e-4, 1e-3, 3e-3])
    experiment.add_options("augmenters", [[], [RandomRotator()]])
    experiment.run()
