"""The sweep as a multirun of Hydra with its joblib launcher, which reuses a process for each core.

Hydra also writes the settings of each training as YAML, and a log. It does not collect results, starts again from the
beginning if it is interrupted, and ends at the first exception.
"""

from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from tests.benchmarks.peers.training import save, train


@hydra.main(version_base=None, config_path=".", config_name="hydra_joblib")
def main(config: DictConfig) -> None:
    settings = {"lr": config.lr, "weight_decay": config.weight_decay, "seed": config.seed}
    epochs = list(train(Path(config.data), n_epochs=config.n_epochs, batch_size=config.batch_size, **settings))
    save(Path(HydraConfig.get().runtime.output_dir), settings, epochs)


if __name__ == "__main__":
    main()
