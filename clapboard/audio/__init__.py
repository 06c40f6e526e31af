"""Audio files of any kind → samples → the windows and log-mel spectrograms that an encoder takes."""
